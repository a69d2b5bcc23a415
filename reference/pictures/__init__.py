"""What a run looks like:

visualise           pictures of predictions
strip_files         the same as files that a run leaves behind
charts              curves and bars
method_gains        what related methods gain
domain_prototypes   prototypes of both domains
feature_space       where they lie
cosine_matrix       how alike they are
page                what all reports have in common
report              the page of the demo
run_facts           what a run folder says
run_charts          its curves
time_lapse          its images over time
run_page            the page of a run on real data
"""
