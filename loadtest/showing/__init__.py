"""Results for people and for other tools: text, CSV, .hgrm, SVG and one HTML page.

Everything here works from a Result alone, so that a report can be made again from its file. Names,
addresses and errors in it come from outside: `words.clean` or `markup.element` sees all of them.

The plots are our own SVG. Tried or weighed against it: plotly (69 MB installed) and vl-convert
(84 MB), which are for scripts in the page; matplotlib and bokeh (35 MB, numpy and seven more
packages); and pygal, the one that is small: its logarithm is for both axes or none, each picture
carries a script and another random id, it knows neither `desc` nor a dark page, and has no types.
"""
