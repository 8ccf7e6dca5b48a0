"""The training loop and what it trains.

training_run        a run: its YAML file, its method, its folder with checkpoints and log
trainer             the loop: steps, optimizer, averaged weights
throughput          the faster precision, and what a run makes of the machine
update_in_backward  the optimizer inside the backward pass, to save memory
methods/            what can be trained: losses and their data
"""
