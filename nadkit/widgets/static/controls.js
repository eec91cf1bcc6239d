// Class, layer, second class, threshold and condition.

/** A field to pick one of many names: opened by click or arrow key, searched by typing. */
function chooser(label, key, choose) {
  const [field, list] = [newId(key), newId(`${key}-list`)];
  const input = h("input", {
    id: field, type: "text", role: "combobox", "aria-expanded": "false", "aria-controls": list,
    "aria-autocomplete": "list", autocomplete: "off", spellcheck: "false", "data-key": key,
  });
  const options = h("ul", { id: list, role: "listbox", "aria-label": `${label}: names`, hidden: true });
  const open = h("button", { type: "button", tabindex: -1, "aria-label": `show the list: ${label}`, class: "nadkit-open" }, "▾");
  let names = [], current = "", shown = [], at = -1;
  const MOST = 60;
  const close = (restore = true) => {
    options.hidden = true;
    set(input, "aria-expanded", "false");
    set(input, "aria-activedescendant", null);
    if (restore) input.value = current;
  };
  const mark = (index) => {
    at = index;
    [...options.children].forEach((one, i) => set(one, "aria-selected", i === at ? "true" : "false"));
    const active = options.children[at];
    set(input, "aria-activedescendant", active ? active.id : null);
    if (active) active.scrollIntoView({ block: "nearest" });
  };
  const fill = (searched) => {
    const wanted = searched.trim().toLowerCase();
    const found = names.filter((name) => name.toLowerCase().includes(wanted));
    // Names that begin so come first: "shirt" before "t-shirt".
    found.sort((a, b) => (b.toLowerCase().startsWith(wanted) - a.toLowerCase().startsWith(wanted)) * (wanted !== ""));
    shown = found.slice(0, MOST);
    options.replaceChildren(...shown.map((name, i) => h("li", {
      role: "option", id: `${list}-${i}`, "aria-selected": "false",
      onpointerdown: (event) => { event.preventDefault(); pick(name); },
    }, name)));
    if (!shown.length) options.append(h("li", { role: "option", "aria-disabled": "true", "aria-selected": "false" }, "nothing of that name"));
    else if (found.length > MOST) options.append(h("li", { role: "option", "aria-disabled": "true", "aria-selected": "false" }, `${found.length - MOST} more: type to search`));
    options.hidden = false;
    set(input, "aria-expanded", "true");
    mark(wanted ? (shown.length ? 0 : -1) : shown.indexOf(current));
  };
  const pick = (name) => {
    close(false);
    current = input.value = name;
    choose(name);
  };
  input.addEventListener("input", () => fill(input.value));
  input.addEventListener("click", () => { if (options.hidden) { input.select(); fill(""); } });
  open.addEventListener("click", () => { if (options.hidden) { input.focus(); fill(""); } else close(); });
  input.addEventListener("blur", () => close());
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (options.hidden) fill("");
      else mark((at + step + shown.length) % Math.max(shown.length, 1));
    } else if (event.key === "Enter" && !options.hidden) {
      event.preventDefault();
      if (shown[at] !== undefined) pick(shown[at]);
    } else if (event.key === "Escape" && !options.hidden) {
      event.stopPropagation(); // the first one closes the list, the next one leaves the output
      close();
    }
  });
  const root = h("div", { class: "nadkit-field" }, h("label", { for: field }, label), h("span", { class: "nadkit-chooser" }, input, open, options));
  return {
    root,
    update(all, value) {
      names = all;
      current = value;
      // What somebody is typing is not overwritten.
      if (options.hidden) input.value = value;
    },
  };
}

const NONE = "(none)"; // a class may be called "none"

export default panel((body, act) => {
  const task = chooser("Class", "task", (name) => act("task", name));
  const layer = chooser("Layer", "layer", (name) => act("layer", name));
  const other = chooser("Compare with", "other_task", (name) => act("other_task", name === NONE ? "" : name));
  const id = newId("threshold");
  const shown = h("output", { for: id });
  const slider = h("input", {
    id, type: "range", min: 0, max: 1, step: 0.01, "data-key": "threshold",
    oninput: () => { text(shown, Number(slider.value).toFixed(2)); act("threshold", Number(slider.value)); },
  });
  const threshold = h("div", { class: "nadkit-field" }, h("label", { for: id }, "Threshold"), h("span", { class: "nadkit-slider" }, slider, shown));
  const group = newId("condition");
  const conditions = h("fieldset", { class: "nadkit-field" }, h("legend", {}, "Condition"));
  const summary = h("p", { class: "nadkit-summary", role: "status" });
  body.append(h("div", { class: "nadkit-row" }, task.root, layer.root, other.root, threshold, conditions), summary);
  let radios = null;
  return (state) => {
    task.update(state.tasks, state.task);
    layer.update(state.layers, state.layer);
    other.update([NONE, ...state.tasks.filter((name) => name !== state.task)], state.other_task || NONE);
    // While a later wish is under way, an earlier answer must not pull the handle back.
    if (!act.busy()) slider.value = state.threshold;
    text(shown, Number(slider.value).toFixed(2));
    radios ??= state.conditions.map((name) => {
      const radio = h("input", { type: "radio", name: group, value: name, "data-key": `condition-${name}`, onchange: () => act("condition", name) });
      conditions.append(h("label", {}, radio, name));
      return radio;
    });
    for (const radio of radios) radio.checked = radio.value === state.condition;
    text(summary, state.summary);
  };
});
