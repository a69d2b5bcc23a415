"""Networks, all with one output:

output          what every network takes and gives
toy             a small network for small drawn images
"""
