/* What a person does with a plot: menus, legend, hovering, zooming, by mouse, touch and keyboard. */

const KEPT = "sskd-report:";
function keep(key, value) {
  try { sessionStorage.setItem(KEPT + key, value); } catch { /* some browsers keep nothing of files */ }
}
function kept(key) {
  try { return sessionStorage.getItem(KEPT + key); } catch { return null; }
}
function html(name, attributes, parent, text) {
  const node = document.createElement(name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
}

class Figure {
  constructor(plot, host) {
    this.plot = plot;
    this.host = host;
    this.hidden = new Set();
    this.turned = new Set();
    this.chosen = plot.menus.map((_, i) => kept(`${plot.id}/${i}`) || plot.views[0].name[i]);
    this.bar = html("div", { class: "plot-bar" }, host);
    this.menus = this.chosen.length ? plot.menus.map((name, i) => this.menu(name, i)) : [];
    this.reset = html("button", { type: "button", class: "quiet", hidden: "" }, this.bar, "Show all");
    this.reset.addEventListener("click", () => this.fit());
    this.frame = html("div", { class: "frame" }, host);
    this.svg = element("svg", { role: "img", tabindex: "0", "aria-label": `${plot.title}. Arrow keys read values, plus and minus zoom, 0 shows all.` }, this.frame);
    this.tip = html("div", { class: "tip", hidden: "" }, this.frame);
    this.legend = html("div", { class: "legend", role: "group", "aria-label": "Show or hide" }, host);
    this.said = html("p", { class: "unseen", "aria-live": "polite" }, host);
    this.listen();
    this.choose();
    new ResizeObserver(() => this.redraw()).observe(this.frame);
  }

  menu(name, place) {
    const label = html("label", {}, this.bar, `${name} `);
    const select = html("select", {}, label);
    select.addEventListener("change", () => {
      this.chosen[place] = select.value;
      keep(`${this.plot.id}/${place}`, select.value);
      this.choose();
    });
    label.hidden = new Set(this.plot.views.map((view) => view.name[place])).size < 2;
    return select;
  }

  choose() {
    let views = this.plot.views;
    this.menus.forEach((select, i) => {
      const names = [...new Set(views.map((view) => view.name[i]))];
      if (!names.includes(this.chosen[i])) this.chosen[i] = names[0];
      select.replaceChildren(...names.map((name) => new Option(name, name, false, name === this.chosen[i])));
      views = views.filter((view) => view.name[i] === this.chosen[i]);
    });
    this.view = views[0];
    const groups = new Map(), alike = new Map();
    for (const one of this.view.series) {
      one.of = one.group || one.label;
      if (!groups.has(one.of)) groups.set(one.of, []);
      one.number = one.colour ?? [...groups.keys()].indexOf(one.of);
      one.turn = groups.get(one.of).push(one) - 1;
      if (!alike.has(one.number)) alike.set(one.number, []); // a method's colour under other conditions: another mark and dash
      if (!alike.get(one.number).includes(one.of)) alike.get(one.number).push(one.of);
      one.variant = alike.get(one.number).indexOf(one.of);
      if (one.faint && !this.turned.has(one.of)) this.hidden.add(one.of);
    }
    this.list();
    this.fit();
  }

  list() {
    const series = this.view.series.filter((one) => one.turn === 0);
    this.legend.hidden = series.length < 2 && this.plot.kind !== "lines";
    this.legend.replaceChildren();
    series.forEach((one) => {
      const i = one.number, button = html("button", { type: "button", "aria-pressed": String(!this.hidden.has(one.of)) }, this.legend);
      const sign = element("svg", { viewBox: "-11 -7 22 14", width: 22, height: 14, "aria-hidden": "true", class: `series ${one.colours ? "plain" : `s${i % 8}`}` }, button);
      if (one.join) element("path", { d: "M-11,0H11", class: "line", "stroke-dasharray": dash(one) }, sign);
      element("path", { d: MARKS[markOf(one)](4), class: markOf(one) === 5 ? "mark open" : "mark" }, sign);
      html("span", {}, button, one.of);
      button.addEventListener("click", () => {
        this.turned.add(one.of);
        if (!this.hidden.delete(one.of)) this.hidden.add(one.of);
        button.setAttribute("aria-pressed", String(!this.hidden.has(one.of)));
        this.fit();
      });
    });
    if (series.length > 8) {
      for (const [text, hide] of [["all", false], ["none", true]]) {
        html("button", { type: "button", class: "quiet" }, this.legend, text).addEventListener("click", () => {
          for (const one of series) {
            this.turned.add(one.of);
            this.hidden[hide ? "add" : "delete"](one.of);
          }
          this.list();
          this.fit();
        });
      }
    }
  }

  fit() {
    const seen = this.view.series.filter((one) => !this.hidden.has(one.of));
    this.range = ranges(this.plot, this.view, seen.length ? seen : this.view.series);
    this.reset.hidden = true;
    this.redraw();
  }

  redraw(wanted) {
    const width = wanted || Math.round(this.frame.clientWidth);
    if (!width || !this.range) return;
    this.drawn = draw(this.svg, this.plot, this.view, this.hidden, this.range, width);
    this.cursor = element("g", { class: "cursor" }, this.svg);
    this.tip.hidden = true;
  }

  zoom(x, y) {
    if (this.plot.kind === "dots") y = this.range.y;
    if (!(x[1] > x[0] && y[1] > y[0])) return;
    this.range = { x, y };
    this.reset.hidden = false;
    this.redraw();
  }

  listen() {
    let start = null;
    const at = (event) => {
      const area = this.svg.getBoundingClientRect();
      return [event.clientX - area.left, event.clientY - area.top];
    };
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "touch") start = at(event);
    });
    this.svg.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      if (start && Math.hypot(x - start[0], y - start[1]) > 6) {
        this.cursor.replaceChildren();
        this.tip.hidden = true;
        element("rect", { x: Math.min(x, start[0]), y: Math.min(y, start[1]), width: Math.abs(x - start[0]), height: Math.abs(y - start[1]), class: "drag" }, this.cursor);
      } else this.hover(x, y);
    });
    window.addEventListener("pointerup", (event) => {
      if (!start) return;
      const [x, y] = at(event), { sx, sy } = this.drawn, from = start;
      start = null;
      if (Math.abs(x - from[0]) < 8 || Math.abs(y - from[1]) < 8) return;
      this.zoom([sx.back(Math.min(x, from[0])), sx.back(Math.max(x, from[0]))], [sy.back(Math.max(y, from[1])), sy.back(Math.min(y, from[1]))]);
    });
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.svg.addEventListener("blur", () => this.leave());
    this.svg.addEventListener("dblclick", () => this.fit());
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) this.step(steps[event.key]);
    else if (event.key === "0" || event.key === "Escape") this.fit();
    else if (event.key === "+" || event.key === "-") {
      const { box, sx, sy } = this.drawn, part = event.key === "+" ? 0.15 : -0.2;
      this.zoom([sx.back(box.x + part * box.w), sx.back(box.x + (1 - part) * box.w)], [sy.back(box.y + (1 - part) * box.h), sy.back(box.y + part * box.h)]);
    } else return;
    event.preventDefault();
  }

  /* All points in reach, as [x, y in pixels, series, number, index]. */
  points() {
    const { sx, sy, drawn } = this.drawn, found = [];
    for (const [one, number] of drawn) {
      one.x.forEach((x, i) => {
        if (x !== null && one.y[i] !== null) found.push([sx(x), sy(one.y[i]), one, number, i]);
      });
    }
    return found;
  }

  step(by) {
    const points = this.points().sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    if (!points.length) return;
    this.place = (((this.place ?? (by > 0 ? -1 : 0)) + by) % points.length + points.length) % points.length;
    this.tell(points[this.place], true);
  }

  hover(x, y) {
    const weight = this.plot.kind === "lines" ? 0.35 : 1;
    let best = null, least = 60;
    for (const point of this.points()) {
      const distance = Math.hypot(point[0] - x, (point[1] - y) * weight);
      if (distance < least) [best, least] = [point, distance];
    }
    if (best) this.tell(best, false);
    else this.leave();
  }

  tell([px, py, one, number, i], aloud) {
    const { box } = this.drawn, spread = one.low && one.low[i] !== null && one.low[i] !== undefined;
    const dots = this.plot.kind === "dots";
    this.cursor.replaceChildren();
    if (this.plot.kind === "lines") element("line", { x1: px, x2: px, y1: box.y, y2: box.y + box.h, class: "hair" }, this.cursor);
    element("circle", { cx: px, cy: py, r: 8, class: `ring s${number % 8}` }, this.cursor);
    const title = dots ? `${one.names[i]}, ${one.label}` : one.names && one.names[i] !== one.label ? `${one.label}, ${one.names[i]}` : one.label;
    const value = dots ? one.x[i] : one.y[i];
    const lines = [`${dots ? this.plot.x : this.view.y || this.plot.y || "value"}: ${shown(value)}${spread ? ` ± ${shown((one.high[i] - one.low[i]) / 2)}` : ""}`];
    if (!dots && this.plot.x) lines.push(`${this.plot.x}: ${shown(one.x[i])}`);
    this.tip.replaceChildren(html("b", {}, null, title), ...lines.map((text) => html("span", {}, null, text)));
    this.tip.hidden = false;
    const width = this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(px + 14, this.frame.clientWidth - width - 4))}px`;
    this.tip.style.top = `${Math.max(0, py - this.tip.offsetHeight - 12)}px`;
    if (aloud) this.said.textContent = `${title}. ${lines.join(", ")}`;
  }

  leave() {
    this.cursor.replaceChildren();
    this.tip.hidden = true;
    this.place = undefined;
  }
}
