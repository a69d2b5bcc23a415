"""Related methods, written from the parts of protocontrast: one file each, for the same loop.

settings    what several of them share, and how their schedules are shortened
projector   heads between features and a contrast
crops       two overlapping crops of a batch, on one grid
bicl        BiCL with its published weights
dacs        DACS: a mean teacher, and images mixed by class
sepico      SePiCo with prototypes, distributions or a bank
pipa        PiPa: pixels by class, and the same pixel in two crops
registry    their names, for `--method`
passes      what the network says about a whole domain
dacs        a mean teacher's labels, and images mixed by class
spcl        both domains contrasted against source prototypes
proca       contrast at two levels, prototypes of both domains
proda       saved predictions rectified by prototypes, and a mean teacher
protoseg    several prototypes per class as the classifier; the source alone
"""
