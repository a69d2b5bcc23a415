"""Related methods, written from the parts of protocontrast: one file each, for the same loop.

settings    what several of them share, and how their schedules are shortened
registry    their names, for `--method`
projector   heads between features and a contrast
sepico      SePiCo with prototypes, distributions or a bank
"""
