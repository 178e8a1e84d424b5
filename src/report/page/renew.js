
(() => {
  const lost = document.getElementById('lost');
  const all = (root) => root.querySelectorAll('details[data-key]');
  async function renew() {
    if (document.hidden || String(getSelection())) return;
    try {
      const answer = await fetch(location.href, { cache: 'no-store' });
      if (!answer.ok) throw new Error(answer.status);
      const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const page = next.getElementById('page');
      if (!page) throw new Error('not a report');
      const here = document.getElementById('page');
      const was = new Map(Array.from(all(here), (d) => [d.dataset.key, d.open]));
      const focus = document.activeElement?.closest('details')?.dataset.key;
      for (const d of all(page)) d.open = was.get(d.dataset.key) ?? d.open;
      here.replaceWith(document.adoptNode(page));
      for (const d of all(page)) if (d.dataset.key === focus) d.querySelector('summary').focus();
      document.title = next.title;
      document.querySelector('link[rel=icon]').href = next.querySelector('link[rel=icon]').href;
      lost.hidden = true;
    } catch (error) {
      if (lost.hidden) {
        const since = new Date().toISOString().slice(11, 19);
        lost.textContent = `No answer since ${since} UTC. What stands here is no longer kept up to date.`;
        lost.hidden = false;
      }
    }
  }
  setInterval(renew, 10000);
  document.addEventListener('visibilitychange', renew);
})();
