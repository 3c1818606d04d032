"""What a window of the recent past can be summed up to: one file and one row of the catalogue for each."""

from evenkeel.libs.features.aggregations.aggregation import Aggregation
from evenkeel.libs.features.aggregations.catalogue import AGGREGATIONS, aggregation_named

__all__ = ["AGGREGATIONS", "Aggregation", "aggregation_named"]
