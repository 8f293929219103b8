// Draws the charts of the dashboard from the tables beside them. Without this script the tables say the same.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  const palette = (element) => {
    const style = getComputedStyle(element);
    const of = (name) => style.getPropertyValue(name).trim();
    return {
      ink: of("--ink"), soft: of("--soft"), line: of("--line"), card: of("--card"),
      muted: of("--muted"),
      many: ["--accent", "--fourth", "--second", "--sixth", "--warn", "--third", "--fifth", "--soft", "--bad", "--good"].map(of),
      series: ["--accent", "--second", "--warn", "--soft", "--bad", "--good", "--third", "--fourth", "--fifth", "--sixth"].map(of),
    };
  };

  // The columns of a table by the key in their header.
  const columnsOf = (table) => {
    const keys = [...table.tHead.rows[0].cells].map((cell) => cell.dataset.key);
    const rows = [...table.tBodies[0].rows];
    return (key) => {
      const place = keys.indexOf(key);
      return {
        label: table.tHead.rows[0].cells[place].textContent.trim(),
        texts: rows.map((row) => row.cells[place].textContent.trim()),
        values: rows.map((row) => (row.cells[place].dataset.v === "" ? null : Number(row.cells[place].dataset.v))),
      };
    };
  };

  const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
  const long = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  const configuration = (figure, colours) => {
    const { drawn, series, unit, muted } = figure.dataset;
    const column = columnsOf(document.getElementById(figure.dataset.table));
    const labels = column(figure.dataset.x).texts;
    const isLine = drawn === "lines";
    const isFunnel = drawn === "funnel";
    const keys = series.split(" ");
    const known = drawn === "stack" && keys.length > 3 ? colours.many : colours.series;
    const datasets = keys.map((key, place) => {
      const { label, values } = column(key);
      const colour = key === muted ? colours.muted : known[place % known.length];
      return {
        label, data: values, backgroundColor: colour, borderColor: isLine ? colour : colours.card,
        borderWidth: isLine ? 2 : drawn === "stack" ? 1 : 0, borderRadius: isLine ? 0 : 3,
        // Told apart without colour too.
        borderDash: isLine ? [[], [6, 4], [2, 3]][place % 3] : [],
        pointStyle: ["circle", "rect", "triangle"][place % 3], pointRadius: labels.length > 40 ? 0 : 3,
        tension: 0, spanGaps: true, maxBarThickness: 44, categoryPercentage: 0.8, barPercentage: 0.9,
      };
    });
    const value = {
      beginAtZero: true, stacked: drawn === "stack", grid: { color: colours.line }, border: { display: false },
      ticks: { color: colours.soft, precision: 0, maxTicksLimit: 6, callback: (number) => short.format(number) + unit },
    };
    const category = {
      stacked: drawn === "stack", grid: { display: false }, border: { color: colours.line },
      ticks: {
        color: colours.soft, autoSkip: !isFunnel, autoSkipPadding: 16, maxRotation: 0,
        callback: (_, place) => cut(labels[place].replace(/ \d{4}$/, ""), isFunnel ? 22 : 12),
      },
    };
    return {
      type: isLine ? "line" : "bar",
      data: { labels, datasets },
      options: {
        indexAxis: isFunnel ? "y" : "x", responsive: true, maintainAspectRatio: false, animation: false,
        interaction: { mode: "index", intersect: false, axis: isFunnel ? "y" : "x" },
        scales: isFunnel ? { x: value, y: category } : { x: category, y: value },
        plugins: {
          legend: {
            display: datasets.length > 1, position: "bottom", align: "start",
            labels: { color: colours.ink, usePointStyle: true, boxHeight: 7, boxWidth: 12, padding: 12 },
          },
          tooltip: {
            callbacks: {
              label: (item) => `${item.dataset.label}: ${long.format(item.raw)}${unit && ` ${unit}`}`,
            },
          },
        },
      },
    };
  };

  const charts = new Map();
  const draw = (colours) => {
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    for (const figure of document.querySelectorAll("figure.chart")) {
      const settings = configuration(figure, colours);
      const old = charts.get(figure);
      if (old) old.destroy();
      if (figure.dataset.drawn === "funnel") {
        // A funnel has as much room as it has steps; the height is set by script, which the policy allows.
        figure.querySelector(".plot").style.height = `${Math.max(180, 40 + 38 * settings.data.labels.length)}px`;
      }
      charts.set(figure, new Chart(figure.querySelector("canvas"), settings));
      figure.classList.add("drawn");
    }
  };

  document.addEventListener("DOMContentLoaded", () => {
    const numbers = [...document.querySelectorAll("details.numbers")];
    if (typeof Chart === "undefined") {
      root.classList.remove("js"); // the library did not come: the tables stay
      return;
    }
    for (const one of numbers) one.open = false;
    root.classList.add("ready");
    draw(palette(root));
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(palette(root)));
    // On paper: light, and with the numbers.
    let closed = [];
    window.addEventListener("beforeprint", () => {
      closed = numbers.filter((one) => !one.open);
      for (const one of closed) one.open = true;
      const paper = document.createElement("div");
      paper.className = "paper";
      document.body.append(paper);
      draw(palette(paper));
      paper.remove();
    });
    window.addEventListener("afterprint", () => {
      for (const one of closed) one.open = false;
      draw(palette(root));
    });
  });
})();
