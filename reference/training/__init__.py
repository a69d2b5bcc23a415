"""Training, from a setting to a trained network:

config          every setting of a run
losses          cross-entropy
pseudo_labels   static pseudo labels
alarms          label-free signs of a run that goes wrong
history         what a run reports while it trains
method          what a method is to the loop
adapt_step      BiCL: the loss terms of one step, the method on one screen
stages          both stages
"""
