"""Runs on real data, from named settings to checkpoints:

stage_settings      the two stages
settings            a whole run
presets             named settings
phases              a run as a row of phases
recorded_settings   settings as plain values, and how two differ
processes           one process, or those of torchrun
domains             the images of a run
optimisation        optimiser, learning rates, precision
pseudo_label_files  static labels of a round
terms               loss terms that add up over parts and ranks
monitor             alarms, kept over a resume
state               everything that a step changes
checkpoints         whole or absent, the newest kept
metrics             CSV and TensorBoard
clock               speed, memory, time left
console             what a person sees
validation          scores while a run goes on
expectations        what a source network reaches, and why it may not
panels              pictures and prototypes while a run goes on
run_folder          what belongs to a run, and where it comes from
signals             being asked to stop
loop                phases and steps
recorded_run        a run read back from its folder
"""
