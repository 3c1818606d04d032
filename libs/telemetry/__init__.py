"""What a service tells about itself while it runs: traces (`tracing`), metrics (`names`, `metrics`) and logs (`logs`)."""
