"""How good predictions and pseudo labels are:

evaluate        confusion matrix and IoU
label_accuracy  how right pseudo labels are, for reports only
protocol        how published numbers are measured
published       rows of other methods
class_table     IoU per class beside them
"""
