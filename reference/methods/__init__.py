"""Related methods, written from the parts of protocontrast: one file each, for the same loop.

settings        what several of them share, and how their schedules are shortened
mean_teacher    the moving average of a network or a head
projector       heads between features and a contrast
crops           two overlapping crops of a batch, on one grid
passes          what the network says about a whole domain
activations     prototypes where a teacher's class activation is largest
translator      source images in the look of the target
relighting      a net that gives images of every hour one light
discriminators  judges of predictions
lovasz          a surrogate of the mean IoU
static_classes  labels of what stands still, from day images
bicl            BiCL with its published weights
dacs            DACS: a mean teacher, and images mixed by class
bicl_dacs       BiCL's contrast on DACS
spcl            SPCL: both domains contrasted against source prototypes
sepico          SePiCo with prototypes, distributions or a bank
confeti         CONFETI: contrast with prototypes, and translated source images
blda            BLDA: balanced logits
bi_mix          Bi-Mix: nights from labelled days, by relighting and mixing both ways
proca           ProCA: contrast at two levels, prototypes of both domains
proda           ProDA: saved predictions rectified by prototypes, and a mean teacher
pipa            PiPa: pixels by class, and the same pixel in two crops
protoseg        ProtoSeg: several prototypes per class as the classifier; the source alone
registry        their names, for `--method`
"""
