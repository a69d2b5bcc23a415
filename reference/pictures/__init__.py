"""What a run looks like:

visualise       pictures of predictions
charts          curves and bars
report          one self-contained page
"""
