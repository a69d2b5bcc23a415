"""What is trained on, from files to batches:

classes         names, colours and numberings of the 19 classes
picture_files   images and labels as PNG, checked
datasets        readers of GTA5 and Cityscapes
transforms      batches keyed by seed, iteration and slot
"""
