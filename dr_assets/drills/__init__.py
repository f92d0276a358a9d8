"""Drills: a scenario from end to end, its objectives measured, its checks put to the test by planted damage.

What belongs here: scenarios, negative controls, the sealed fact `drill`. What stays out: the restores themselves
(stores/, proving/), and when a drill is due (components/).
"""
