"""Results for people and for other tools: text, CSV, .hgrm, SVG and one HTML page.

Everything here works from a Result alone, so that a report can be made again from its file. Names,
addresses and errors in it come from outside: `words.clean` or `markup.element` sees all of them.

Plots are matplotlib's (with numpy and seven more packages), an extra. Tried or weighed against it:
plotly (69 MB installed) and vl-convert (84 MB), which are for scripts in the page; and pygal:
its logarithm is for both axes or none, each picture carries a script and another random id, it
knows neither `desc` nor a dark page, and has no types.
"""
