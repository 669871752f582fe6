// Put before every page's own scripts: eyes and hands that reach through shadow roots, and an
// ear for answers of GraphQL, which are 200 whatever they say.
(() => {
  const roots = (root = document) => {
    const found = [root];
    for (const element of root.querySelectorAll("*")) {
      if (element.shadowRoot) found.push(...roots(element.shadowRoot));
    }
    return found;
  };
  const shown = (element) =>
    element.checkVisibility({ visibilityProperty: true }) &&
    element.getBoundingClientRect().width > 0;
  const text = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return node.data;
    if (node.nodeType !== Node.ELEMENT_NODE && node.nodeType !== Node.DOCUMENT_FRAGMENT_NODE) {
      return "";
    }
    if (["STYLE", "SCRIPT", "TEMPLATE"].includes(node.nodeName)) return "";
    if (node.nodeName === "SLOT" && node.assignedNodes().length > 0) {
      return node.assignedNodes().map(text).join(" ");
    }
    if (node.checkVisibility && node.nodeName !== "SLOT" && getComputedStyle(node).display === "none") {
      return "";
    }
    return [...(node.shadowRoot ?? node).childNodes].map(text).join(" ");
  };
  const tidy = (words) => words.replace(/\s+/g, " ").trim();

  window.__text = () => tidy(document.body ? text(document.body) : "");
  // The first visible element of a CSS selector, whose text is `wanted` if that is given.
  window.__find = (selector, wanted) =>
    roots()
      .flatMap((root) => [...root.querySelectorAll(selector)])
      .find((element) => shown(element) && (wanted === undefined || tidy(text(element)) === wanted));

  const fetched = window.fetch;
  window.fetch = async (...args) => {
    const answer = await fetched(...args);
    if (answer.url.includes("/admin/g")) {
      const what = args[1]?.body ?? args[0]?.body;
      answer.clone().json().then(
        (body) => body.errors && window.__report(JSON.stringify({ query: what, errors: body.errors })),
        () => {},
      );
    }
    return answer;
  };
})();
