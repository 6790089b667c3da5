"use strict";
// Values under the pointer of each chart, and folded parts opened for print. Text is set as text.
document.querySelectorAll("svg[data-series]").forEach(function (svg) {
  var series = JSON.parse(svg.dataset.series), plot = JSON.parse(svg.dataset.plot);
  var box = svg.parentNode.querySelector(".hover"), pointer = svg.querySelector(".pointer");
  // a finger that is lifted leaves the chart; what it showed is read then
  function hide(event) {
    if (event.pointerType !== "touch") box.style.visibility = pointer.style.visibility = "hidden";
  }
  function show(event) {
    var frame = svg.getBoundingClientRect(), wide = svg.viewBox.baseVal.width;
    var at = (event.clientX - frame.left) * wide / frame.width;
    var x = plot.x0 + (at - plot.left) / (plot.right - plot.left) * (plot.x1 - plot.x0);
    var lines = [], nearest = null;
    series.forEach(function (one) {
      var best = 0;
      one.x.forEach(function (v, i) { if (Math.abs(v - x) < Math.abs(one.x[best] - x)) best = i; });
      if (nearest === null || Math.abs(one.x[best] - x) < Math.abs(nearest - x)) nearest = one.x[best];
      lines.push(one.name + " " + one.y[best] + (one.x[best] === nearest ? "" : " (" + one.x[best] + ")"));
    });
    if (nearest === null) return;
    var place = plot.left + (nearest - plot.x0) / (plot.x1 - plot.x0 || 1) * (plot.right - plot.left);
    pointer.setAttribute("x1", place); pointer.setAttribute("x2", place);
    box.textContent = plot.name + " " + nearest + "\n" + lines.slice(0, 12).join("\n");
    box.classList.toggle("left", place > wide / 2); // where it does not cover what is pointed at
    box.style.visibility = pointer.style.visibility = "visible";
  }
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
});
addEventListener("beforeprint", function () {
  document.querySelectorAll("details").forEach(function (one) { one.open = true; });
});
