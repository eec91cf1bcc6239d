// What is wider than its place scrolls sideways: this says so, by a fading edge, by a line and to the keyboard.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const named = ".nadkit-scroll, .pst-scrollable-table-container, .cell_output .text_html";
  const places = document.querySelectorAll(`${named}, article pre, article div.math`);
  const SLACK = 8; // pixels that nobody misses
  const look = (place) => {
    const rest = place.scrollWidth - place.clientWidth;
    const wide = rest > SLACK && place.clientWidth > 0;
    place.classList.toggle("nadkit-wide", wide);
    place.classList.toggle("nadkit-more-left", wide && place.scrollLeft > SLACK);
    place.classList.toggle("nadkit-more-right", wide && place.scrollLeft < rest - SLACK);
    if (!wide) {
      if (place.matches(".nadkit-scroll")) place.removeAttribute("tabindex");
      return;
    }
    place.tabIndex = 0;
    if (!place.matches(named)) return;
    place.setAttribute("role", "group"); // a region would be a landmark, and there are many
    const what = place.querySelector("table") ? "Table" : place.matches(".nadkit-scroll") ? "Figure" : "Output";
    place.setAttribute("aria-label", `${what}, wider than the page: it scrolls sideways`);
    if (place.nextElementSibling?.matches(".nadkit-hint")) return;
    const hint = document.createElement("p");
    hint.className = "nadkit-hint";
    hint.ariaHidden = "true"; // the label has said it
    hint.textContent = `${what} is wider than the page: scroll sideways ⟷`;
    place.after(hint);
  };
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) look(target.closest(".nadkit-watched"));
  });
  for (const place of places) {
    place.classList.add("nadkit-watched");
    place.addEventListener("scroll", () => look(place), { passive: true });
    [place, ...place.children].forEach((element) => resized.observe(element));
    look(place);
  }
});
