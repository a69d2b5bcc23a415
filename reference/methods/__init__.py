"""Related methods, written from the parts of protocontrast: one file each, for the same loop.

settings    what several of them share, and how their schedules are shortened
registry    their names, for `--method`
projector   heads between features and a contrast
crops       two overlapping crops of a batch, on one grid
sepico      SePiCo with prototypes, distributions or a bank
pipa        PiPa: pixels by class, and the same pixel in two crops
"""
