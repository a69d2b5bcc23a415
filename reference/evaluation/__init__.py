"""How good predictions and pseudo labels are:

evaluate        confusion matrix and IoU
label_accuracy  how right pseudo labels are, for reports only
"""
