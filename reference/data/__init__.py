"""What is trained on, from files to batches:

classes         names, colours and numberings of the 19 classes
faults          what can be wrong with a file, in one sentence and in fields
headers         size and bit depth of a picture, and whether it is whole
picture_files   images and labels, decoded whole and checked
readers         what every reader offers, and the listing of its files
gta5            reader of GTA5
cityscapes      reader of Cityscapes
sequences       sequences of one set as domains of their own
synthia         reader of SYNTHIA-RAND-CITYSCAPES
prepared        reader of a smaller copy of any of them
sets            any of them by its name
worker_pool     one function over many files, in several processes
index           how many pixels of each class every label file holds
checking        every fault of a set on disk
rare_classes    probabilities of classes, and images that show them
resizing        scaling of images and labels
preparing       makes the smaller copy
colour          colour jitter and blur
crops           resize, scale, crop, mirror
order           which image stands in which slot of which iteration
loading         batches of the real sets, read by worker processes
arrays          a small set in memory
transforms      batches of it, keyed by seed, iteration and slot
"""
