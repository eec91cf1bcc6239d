// Fields of lessons: a list to pick from, a number with its neighbours, a group of switches.

/** A list of names; typing goes to the one that begins so, as in any list of the browser. */
function dropdown(label, key, choose) {
  const id = newId(key);
  const select = h("select", { id, class: "nadkit-select", "data-key": key, onchange: () => choose(select.value) });
  quiet(select);
  let drawn = "";
  return {
    root: h("div", { class: "nadkit-field" }, h("label", { for: id }, label), select),
    update(names, value) {
      const now = JSON.stringify(names);
      if (now !== drawn) select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
      drawn = now;
      select.value = value;
    },
  };
}

/** A whole number with buttons to the one before and the one after. */
function numberField(label, key, choose) {
  const id = newId(key);
  const field = h("input", { id, type: "number", min: 0, step: 1, class: "nadkit-number", "data-key": key, onchange: () => go(Number(field.value)) });
  const go = (value) => {
    field.value = Math.min(Math.max(Math.round(value) || 0, 0), Number(field.max));
    choose(Number(field.value));
  };
  const step = (by, sign, words) => button(sign, () => go(Number(field.value) + by), { "aria-label": `${words} ${label.toLowerCase()}`, "data-key": `${key}${sign}` });
  return {
    root: h("div", { class: "nadkit-field" }, h("label", { for: id }, label), h("span", {}, step(-1, "‹", "previous"), field, step(1, "›", "next"))),
    update(value, most) {
      set(field, "max", most);
      field.value = value;
    },
  };
}

/** Buttons of which one is pressed. */
function choices(label, key, choose) {
  const root = h("div", { class: "nadkit-row", role: "group", "aria-label": label });
  return {
    root,
    update(pairs, value) {
      root.replaceChildren(...pairs.map(([name, words]) => button(words, () => choose(name), { "aria-pressed": String(name === value), "data-key": `${key}-${name}` })));
    },
  };
}
