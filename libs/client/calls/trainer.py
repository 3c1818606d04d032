"""What can be asked of trainer."""

from __future__ import annotations

from evenkeel.contracts.http import trainer
from evenkeel.libs.client.calls.operations import Operations
from evenkeel.libs.client.exchange import Call, call_of
from evenkeel.libs.client.operation import C_co, operation


class Trainer(Operations[C_co]):
    """Runs, and the loops that decide about them."""

    service = "trainer"

    @operation
    def runs(self, model: str) -> Call[trainer.Runs]:
        """Every run of a model that was decided."""
        return call_of(self.service, trainer.RUNS, model=model)

    @operation
    def cuts(self, model: str) -> Call[trainer.Cuts]:
        """The dataset versions that runs may read, oldest first."""
        return call_of(self.service, trainer.CUTS, model=model)

    @operation
    def train(self, model: str) -> Call[trainer.TrainDecision]:
        """Ask for a run; the decision may be no."""
        return call_of(self.service, trainer.TRAIN, model=model)

    @operation
    def loops(self) -> Call[trainer.Loops]:
        """Every model's loop: whether it is paused, and its open job."""
        return call_of(self.service, trainer.LOOPS)

    @operation
    def pause(self, model: str, *, by: str, reason: str) -> Call[trainer.LoopChange]:
        """Pause a model's loop; refused if it is paused already."""
        body = trainer.LoopRequest(by=by, reason=reason)
        return call_of(self.service, trainer.PAUSE, body=body, model=model)

    @operation
    def resume(self, model: str, *, by: str, reason: str) -> Call[trainer.LoopChange]:
        """Resume a model's loop."""
        body = trainer.LoopRequest(by=by, reason=reason)
        return call_of(self.service, trainer.RESUME, body=body, model=model)
