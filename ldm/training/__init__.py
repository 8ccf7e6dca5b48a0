"""The training loop and what it trains.

run_config          the YAML file of a run
trainer             the loop: steps, optimizer, averaged weights
update_in_backward  the optimizer inside the backward pass, to save memory
run_folder          checkpoints, log and loss curve; is a run finished?
methods/            what can be trained: losses and their data
"""
