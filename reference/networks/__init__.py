"""Networks, all with one output:

toy             a small network for small drawn images
"""
