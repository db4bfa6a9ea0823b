"""What every page must hold to, measured in the browser: pictures that show, nothing wider than the window, text that can be read."""

from __future__ import annotations

from pathlib import Path

from tests.report.browser import Browser

CONTRAST = 4.5
"""Of text to its ground: WCAG 2.2, 1.4.3, level AA."""
SMALLEST = 7
"""Pixels of the smallest words in a picture, as rendered."""

SCRIPT = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = color => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = '#000'; canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                       return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const grounds = element => {
    let found = [[]];
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      const stops = style.backgroundImage.match(/(?:rgba?|color|oklab|oklch)\\([^()]*\\)/g) || [];
      const layers = [style.backgroundColor].concat(stops);
      found = found.flatMap(path => stops.length ? layers.map(c => path.concat([rgba(c)])) : [path.concat([rgba(layers[0])])]);
    }
    return found.map(path => path.reduceRight((under, top) => over(top, under), [255, 255, 255, 1]));
  };
  const visible = e => e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true});
  const problems = [];
  document.querySelectorAll('details').forEach(d => d.open = true);
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) problems.push(`the page is ${page.scrollWidth} wide in a window of ${page.clientWidth}`);
  for (const e of document.querySelectorAll('body *')) {
    const box = e.getBoundingClientRect();
    if (box.right > page.clientWidth + 1 && visible(e) && !e.closest('.scroll, pre') && !e.closest('svg'))
      problems.push(`${e.tagName} ${e.className} reaches ${box.right}`);
  }
  const pictures = [...document.images, ...document.querySelectorAll('svg')];
  for (const e of pictures) {
    const box = e.getBoundingClientRect();
    if (box.width < 20 || box.height < 20) problems.push(`${e.tagName} is ${box.width} x ${box.height}`);
    if (e.tagName === 'IMG' && !(e.complete && e.naturalWidth)) problems.push('an image did not load');
    if (!(e.tagName === 'IMG' ? e.alt : e.querySelector(':scope > title')?.textContent)) problems.push(`${e.tagName} says nothing to those who do not see it`);
  }
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
  ids.filter((id, i) => ids.indexOf(id) !== i).forEach(id => problems.push(`id ${id} stands twice`));
  for (const link of document.querySelectorAll('a[href^="#"]'))
    if (!document.getElementById(link.getAttribute('href').slice(1))) problems.push(`link ${link.getAttribute('href')} leads nowhere`);
  for (const table of document.querySelectorAll('table'))
    for (const head of table.querySelectorAll('th')) if (!head.scope) problems.push(`heading ${head.textContent} has no scope`);
  let least = 99, texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, e = node.parentElement;
    if (!node.data.trim() || !visible(e) || ['TITLE', 'STYLE', 'SCRIPT'].includes(e.tagName.toUpperCase())) continue;
    const style = getComputedStyle(e), svg = e.closest('svg');
    const color = rgba(svg ? style.fill : style.color);
    for (let p = e; p; p = p.parentElement) color[3] *= parseFloat(getComputedStyle(p).opacity);
    for (const ground of grounds(svg ? svg.parentElement : e)) {
      const found = ratio(over(color, ground), ground);
      least = Math.min(least, found); texts += 1;
      if (found < CONTRAST) problems.push(`contrast ${found.toFixed(2)} of ${JSON.stringify(node.data.trim().slice(0, 40))}`);
    }
    if (svg && e.tagName === 'text') {
      const height = parseFloat(style.fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
      if (height < SMALLEST) problems.push(`${node.data} is ${height.toFixed(1)} pixels high`);
    }
  }
  return {problems: [...new Set(problems)], pictures: pictures.length, texts, least, ground: grounds(document.body)[0].slice(0, 3)};
})()
""".replace("CONTRAST", str(CONTRAST)).replace("SMALLEST", str(SMALLEST))


def check_page(browser: Browser, page: Path, *, width: int, scheme: str) -> dict:
    """Open a page and return what was found: ``problems``, numbers of ``pictures`` and ``texts``, the ``least`` contrast, and the ``ground``."""
    browser.problems.clear()
    browser.open(page, width=width, scheme=scheme)
    found = browser.evaluate(SCRIPT)
    found["problems"] += browser.problems
    return found
