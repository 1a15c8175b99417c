"""One page of HTML about a training run: recipe, curves, spectra, cost, environment, checksums. It loads nothing.

Toy template. On the command line:

    sweet report runs/template runs/classifier --out report.html
"""

from __future__ import annotations

from toy import make_classifier, make_source, playground

from sweet.results.report import report

with playground() as place:
    source = make_source(place / "template")
    classifier = make_classifier(source, place)
    written = report([source, classifier], place / "report.html")
    print({name: value for name, value in written.items() if name != "out"})
    print(f"report.html: {(place / 'report.html').stat().st_size / 1000:.0f} kB")
