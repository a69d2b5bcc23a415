"""Runs that are compared with each other:

row_names       rows, what tables call them, and which go together
scenario        the data of an experiment
rows            one row of a result table
verdict         what a result says in words
matrix          every ingredient switched off in turn
method_tables   related methods side by side
tables          result tables in Markdown
options         what is asked for, and how its results are called
"""
