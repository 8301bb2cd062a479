// The newest scores are at the right end, which a narrow screen should show first.
for (const chart of document.querySelectorAll(".chart")) chart.scrollLeft = chart.scrollWidth;
