"use strict";
// Shows what lies under the pointer, or, with the arrow keys, at a place on the time axis.
for (const plot of document.querySelectorAll("figure > .plot")) {
  const lines = [...plot.querySelectorAll("[data-points]")].map((group) => ({
    name: group.dataset.name,
    look: group.dataset.look,
    points: JSON.parse(group.dataset.points),
  })).filter((line) => line.points.length);
  if (!lines.length) continue;
  const [left, top, right, bottom] = plot.dataset.axes.split(" ").map(Number);
  const reading = document.createElementNS("http://www.w3.org/2000/svg", "path");
  reading.setAttribute("class", "reading");
  const told = document.createElement("div");
  told.className = "told";
  told.hidden = true;
  told.setAttribute("role", "status");
  plot.parentElement.append(told);
  plot.tabIndex = 0;
  let at = left;

  const nearest = (points, x) =>
    points.reduce((best, one) => (Math.abs(one[0] - x) < Math.abs(best[0] - x) ? one : best));

  const show = (x) => {
    at = Math.min(Math.max(x, left), right);
    told.replaceChildren(...lines.map((line) => {
      const row = document.createElement("div");
      row.style.borderColor = `var(--c${line.look})`;
      row.textContent = `${line.name}: ${nearest(line.points, at)[2]}`;
      return row;
    }));
    const where = nearest(lines.flatMap((line) => line.points), at)[0];
    reading.setAttribute("d", `M${where} ${top}V${bottom}`);
    plot.append(reading);
    told.hidden = false;
    const box = plot.getBoundingClientRect();
    const across = where * box.width / plot.viewBox.baseVal.width;
    const beside = across > box.width / 2 ? across - told.offsetWidth - 12 : across + 12;
    told.style.left = `${Math.max(0, beside)}px`;
    told.style.top = `${plot.offsetTop ?? 0}px`;
  };
  const hide = () => {
    told.hidden = true;
    reading.remove();
  };

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    show((event.clientX - box.left) * plot.viewBox.baseVal.width / box.width);
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -(right - left) / 50, ArrowRight: (right - left) / 50 }[event.key];
    if (step) {
      event.preventDefault();
      show(at + step);
    } else if (event.key === "Escape") {
      hide();
    }
  });
}
document.documentElement.classList.add("live");
