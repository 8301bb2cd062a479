// A narrow screen shows the newest scores first, at the right end.
for (const chart of document.querySelectorAll(".chart")) chart.scrollLeft = chart.scrollWidth;
