// Elements without a framework. Text is always text: nothing from a study is ever parsed as markup.

/** An element with properties, listeners (`onclick`) and children. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "colour") element.style.background = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

/** Gives an element these children instead of its own. As with `h`, lists are spread and what is absent is left out. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
}

function present(children) {
  return children.flat().filter((child) => child !== null && child !== undefined && child !== false);
}

/** A labelled choice; `options` are `[value, text]`. */
export function choice(label, id, options, value, onchange) {
  const select = h("select", { id, onchange: () => onchange(select.value) },
    options.map(([v, text]) => h("option", { value: v, selected: v === value }, text)));
  return h("label", { for: id }, label, select);
}

/** Buttons of which one is pressed; `options` are `[value, text]`. */
export function switcher(label, options, value, onchange) {
  const buttons = options.map(([v, text]) =>
    h("button", { type: "button", "aria-pressed": String(v === value), dataset: { value: v }, onclick: () => onchange(v) }, text));
  return h("div", { class: "field" }, label, h("div", { class: "group", role: "group", "aria-label": label }, buttons));
}

/** The one floating note beside the pointer. */
export class Tip {
  constructor() {
    this.box = h("div", { class: "tip", role: "tooltip", hidden: true });
    document.body.append(this.box);
  }

  show(x, y, ...content) {
    fill(this.box, ...content);
    this.box.hidden = false;
    const { width, height } = this.box.getBoundingClientRect();
    const left = x + 16 + width > innerWidth ? x - 16 - width : x + 16;
    this.box.style.left = `${Math.max(4, left)}px`;
    this.box.style.top = `${Math.max(4, Math.min(y + 12, innerHeight - height - 6))}px`;
  }

  hide() {
    this.box.hidden = true;
  }

  remove() {
    this.box.remove();
  }
}

/** Name and value pairs as a small table. */
export function pairs(rows) {
  return h("table", {}, rows.map(([name, value, colour]) =>
    h("tr", {}, h("td", {}, h("span", { class: "key" }, colour ? h("i", { colour }) : null, name)), h("td", {}, value))));
}
