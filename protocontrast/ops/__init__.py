"""The operators: registered with torch, checked for label values, sent to a backend.

Only this layer knows that there are several implementations.
"""
