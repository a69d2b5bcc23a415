"""Runs that are compared with each other:

scenario        the data of an experiment
rows            one row of a result table
verdict         what a result says in words
matrix          every ingredient switched off in turn
tables          result tables in Markdown
options         what is asked for, and how its results are called
"""
