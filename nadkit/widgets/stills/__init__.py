"""What a page without a kernel shows in a widget's place: drawings of states, in plain SVG.

A plotly figure would need plotly's JavaScript or a browser to become a picture. Every drawing is a function
of what a panel shows, so that the picture says what the widget said.
"""
