"""Networks, all with one output:

output          what every network takes and gives
toy             a small network for small drawn images
normalisation   colours in buffers
batch_norm      how far BatchNorm is trained
resnet          the dilated backbone
timm_backbone   any backbone of timm, where it is installed
heads           the two heads called DeepLab-V2
deeplab         backbone, head and the place of the prototypes
tensor_files    files of tensors, read without running them
weights         weights of torchvision, timm and old Caffe files
card            a network described in JSON, and built from it
release         weights and card in files
program         a network that runs without this code
"""
