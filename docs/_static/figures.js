// Draws the plotly figures of a page from the data beside them, each when it comes near the screen.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const draw = (place) => {
    const { data, layout } = JSON.parse(place.closest("figure").querySelector("script").textContent);
    Plotly.newPlot(place, data, layout, { responsive: true, displayModeBar: false });
  };
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((e) => e.isIntersecting)) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "800px" },
  );
  const places = document.querySelectorAll(".nadkit-plot");
  places.forEach((place) => seen.observe(place));
  window.addEventListener("beforeprint", () => places.forEach((p) => p.classList.contains("js-plotly-plot") || draw(p)));
});
