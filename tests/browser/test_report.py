"""The report in a real browser: it sends no requests, runs no content of rows, and works by keyboard and screen reader."""

import itertools
import json

import pytest

from runner.reports import report
from runner.types import RowError, Sample
from tests.support.example_records import record
from tests.support.shop import PNG, REFERENCE

SHOWN = "[...document.querySelectorAll('#sample-table tbody tr')].map((row) => row.cells[0].textContent)"
FOUND = "document.querySelector('.found').textContent"
FOCUS = "document.activeElement.textContent"
PANE = "document.getElementById('sample-pane')"


def pick(control, value):
    return f"""{{ const one = document.getElementById({json.dumps(control)}); one.value = {json.dumps(value)};
               if (one.value !== {json.dumps(value)}) throw Error('no such option');
               one.dispatchEvent(new Event('change')); }}"""


# -- hostile rows

SAYS = "window.hacked = 1"
HOSTILE = [
    f"<script>{SAYS}</script>", f"</script><script>{SAYS}</script>", f"<!--<script>{SAYS}</script>",
    f"<img src=x onerror='{SAYS}'>", f"<svg onload='{SAYS}'>", f"'\"><body onload={SAYS}>", f"<a href='javascript:{SAYS}'>x</a>",
    "]]>\u2028\u2029\0&lt;", "${1}{{ 1 }}",
    "<iframe src='http://127.0.0.1:9/'></iframe>", "<link rel=stylesheet href='http://127.0.0.1:9/x.css'>", "__proto__",
]  # fmt: skip


async def test_content_of_rows_and_models_is_shown_as_text(tab, tmp_path):
    rows = [
        Sample(id=evil, messages=[{"role": evil, "content": evil}, {"role": "user", "content": [{"type": evil}]}], output=evil,
               target=[evil], scores={evil: 0.5}, model_served=evil, finish_reason=evil)
        for evil in HOSTILE
    ]  # fmt: skip
    rows += [Sample(id=f"e {evil}", status="error", error=RowError(evil, evil)) for evil in HOSTILE]
    config = {"name": HOSTILE[0], "model": {evil: evil for evil in HOSTILE}}
    folder = record(tmp_path, "evil", rows, config=config, model=HOSTILE[3], problem=HOSTILE[4])
    folder.write_manifest({**{key: value for key, value in folder.manifest().items() if key != "format"}, "name": HOSTILE[1]})
    await tab.open(report(folder.path))
    for index in range(len(rows)):
        await tab.ask(f"if ({index} % 25 === 0 && {index}) document.querySelector('[data-by=\"1\"]').click()")
        await tab.ask(f"document.querySelectorAll('#sample-table tbody button')[{index} % 25].click()")
        assert (await tab.ask(f"{PANE}.textContent")).count(rows[index].id) >= 1
    await tab.ask("document.querySelectorAll('button[data-error]').forEach((button) => button.click())")
    assert await tab.ask("window.hacked") is None
    assert await tab.ask("document.scripts.length") == 2
    assert await tab.ask("document.querySelectorAll('img, iframe, link, a:not(.skip), body body').length") == 0


async def test_the_content_security_policy_blocks_all_requests(tab, sweep_page):
    await tab.open(sweep_page)
    await tab.ask("""new Promise((done) => {
        document.addEventListener('securitypolicyviolation', () => done(), { once: true });
        const script = document.createElement('script');
        script.textContent = 'window.hacked = 1';
        document.body.append(script);
    })""")
    assert await tab.ask("window.hacked") is None
    assert await tab.ask("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    assert len(tab.complaints) >= 2  # the browser says what it refused, and that was asked for here
    tab.complaints.clear()


# -- the sample browser


async def test_samples_are_filtered(tab, sweep_page):
    await tab.open(sweep_page)
    assert await tab.ask(FOUND) == "360 samples"
    await tab.ask(pick("f-status", "is error"))
    failed = await tab.ask(FOUND)
    await tab.ask(pick("f-status", ""))
    await tab.ask(pick("f-score", "exact wrong"))
    wrong = int((await tab.ask(FOUND)).split()[0])
    await tab.ask(pick("f-score", "exact right"))
    right = int((await tab.ask(FOUND)).split()[0])
    await tab.ask(pick("f-score", "none"))
    assert await tab.ask(FOUND) == failed == f"{360 - wrong - right} of 360 samples"
    await tab.ask(pick("f-score", "") + pick("f-part", "4"))
    assert await tab.ask(FOUND) == "60 of 360 samples"
    cells = "new Set([...document.querySelectorAll('#sample-table td.c-part')].map((cell) => cell.textContent))"
    assert await tab.ask(f"[...{cells}]") == ["#5 model=openai/gpt-4o-mini, temperature=0.0"]
    await tab.press("/")
    await tab.type("IS 17 PRIME")  # words of the prompt, whatever their case
    await tab.until(f"{FOUND} === '1 of 360 samples'")
    assert await tab.ask(SHOWN) == ["r17"]
    await tab.type(" nowhere")
    await tab.until(f"{FOUND} === '0 of 360 samples'")
    assert await tab.ask(SHOWN) == ["No sample matches."]


async def test_samples_are_sorted(tab, sweep_page):
    await tab.open(sweep_page)
    for column, read in (("latency", "latency"), ("score0", "scores.get('exact')")):
        head = f"document.querySelector('th[data-key={column}]')"
        values = []
        for way in ("ascending", "descending"):
            await tab.ask(f"{head}.querySelector('button').click()")
            assert await tab.ask(f"{head}.getAttribute('aria-sort')") == way
            shown = f"[...document.querySelectorAll('#sample-table tbody tr')].map((row) => row.sample.{read})"
            values.append(await tab.ask(shown))
        assert values[0] == sorted(values[0])
        assert values[1] == sorted(values[1], reverse=True)
        assert values[0][0] <= values[1][-1] <= values[1][0]
    assert await tab.ask("document.querySelectorAll('#sample-table [aria-sort]').length") == 1


async def test_the_sample_browser_works_by_keyboard(tab, sweep_page):
    await tab.open(sweep_page)
    await tab.press("/")
    assert await tab.ask("document.activeElement.id") == "f-query"
    await tab.press("ArrowDown")
    assert await tab.ask(FOCUS) == "r0"
    await tab.press("ArrowDown")
    await tab.press("ArrowDown")
    await tab.press("ArrowUp")
    assert await tab.ask(FOCUS) == "r1"
    assert await tab.ask(f"{PANE}.hidden")
    await tab.press("Enter")
    assert not await tab.ask(f"{PANE}.hidden")
    assert await tab.ask(FOCUS) == "Row r1"  # what was opened is read next
    said = await tab.ask(f"{PANE}.innerText")
    assert "Is 1 prime?" in said
    assert "Answer in one word." in said
    assert "finish reason" in said
    await tab.press("j")
    assert await tab.ask(FOCUS) == "Row r2"
    await tab.press("k")
    await tab.press("Escape")
    assert await tab.ask(f"{PANE}.hidden")
    assert await tab.ask(FOCUS) == "r1"
    assert await tab.ask("document.activeElement.getAttribute('aria-expanded')") == "false"
    await tab.press("End")
    await tab.press("ArrowDown")  # over the end of the page
    assert await tab.ask("document.querySelector('.where').textContent") == "page 2 of 15"
    assert await tab.ask(FOCUS) == "r25"
    await tab.press("ArrowLeft")
    assert await tab.ask(FOCUS) == "r0"
    await tab.press("/")
    await tab.type("zzz")
    await tab.until(f"{FOUND} === '0 of 360 samples'")
    await tab.press("Escape")
    assert await tab.ask(FOUND) == "360 samples"


async def test_error_buttons_show_their_rows(tab, sweep_page):
    await tab.open(sweep_page)
    text = await tab.ask("document.getElementById('errors').innerText")
    assert "no answer in 120 s" in text
    assert "HTTP 503" in text
    await tab.ask("document.querySelector('button[data-error=timeout]').click()")
    codes = await tab.ask("[...document.querySelectorAll('#sample-table tbody tr')].map((row) => row.sample.error?.code)")
    assert set(codes) == {"timeout"}
    assert await tab.ask("document.activeElement.closest('tbody') !== null")


async def test_ten_thousand_long_answers_are_filtered_quickly(tab, long_page):
    await tab.open(long_page)
    assert await tab.ask(FOUND) == "10,000 samples"
    assert await tab.ask("document.querySelectorAll('#sample-table tbody tr').length") == 25
    await tab.ask(pick("f-score", "exact wrong"))
    assert 2_000 < int((await tab.ask(FOUND)).split()[0].replace(",", "")) < 4_000
    await tab.ask(pick("f-score", ""))
    await tab.press("/")
    await tab.type("r9999")
    await tab.until(f"{FOUND} === '1 of 10,000 samples'")
    await tab.ask(pick("f-score", ""))


# -- looks

CONTRASTS = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = (element) => { for (let one = element; one; one = one.parentElement) {
    const colour = rgb(getComputedStyle(one).backgroundColor); if (colour[3] === 255) return colour; } return rgb('white'); };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest('script, title, desc, [hidden], :disabled')) continue;
    const style = getComputedStyle(element);
    const colour = element.closest('svg') ? style.fill : style.color;
    found.push([ratio(rgb(colour), behind(element)), `${element.tagName}.${element.getAttribute('class')} ${colour}`]);
  }
  for (const mark of document.querySelectorAll('.series path, .bars rect')) {
    const style = getComputedStyle(mark);
    const colour = style.fill === 'none' ? style.stroke : style.fill;
    found.push([ratio(rgb(colour), behind(mark.closest('svg'))) * 1.5, `mark ${colour}`]);  // 3:1 is enough for what is no text
  }
  return found.sort((a, b) => a[0] - b[0]).slice(0, 3).concat([[found.length, 'in all']]);
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_has_enough_contrast(tab, sweep_page, scheme):
    await tab.open(sweep_page, scheme=scheme)
    await tab.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    await tab.ask(pick("f-status", "is error") + "document.querySelector('#sample-table tbody button').click()")
    *worst, (count, _) = await tab.ask(CONTRASTS)
    assert count > 300
    assert worst[0][0] >= 4.5, worst
    shade = await tab.ask("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(shade) < 60) == (scheme == "dark")


@pytest.mark.parametrize("width", [400, 1280])
async def test_nothing_is_wider_than_the_window(tab, sweep_page, long_page, width):
    for page in (sweep_page, long_page):
        await tab.open(page, width=width)
        await tab.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert await tab.ask("document.documentElement.scrollWidth") <= width
        await tab.ask("document.querySelector('#sample-table tbody button').click()")
        assert await tab.ask("document.documentElement.scrollWidth") <= width


# -- for screen readers


async def test_landmarks_and_names_are_accessible(tab, sweep_page):
    await tab.open(sweep_page)
    named = await tab.accessible()
    for role, name in [
        ("region", "Summary"), ("region", "Scores"), ("region", "Errors"), ("region", "Samples"), ("region", "Config"),
        ("search", "Filter samples"), ("navigation", "Pages of samples"), ("searchbox", "Text /"), ("combobox", "Status"),
        ("combobox", "Score"), ("combobox", "Cell"), ("columnheader", "exact"), ("rowheader", "r0"),
        ("heading", "primes incomplete"), ("button", "Show the rows that failed with timeout"),
        ("table", "Cells, best first"),
    ]:  # fmt: skip
        assert (role, name) in named, (role, name)
    pictures = [name for role, name in named if role in ("image", "img")]
    assert any(name.startswith("exact against sampling.temperature. Mean exact for each value") for name in pictures)
    assert all(pictures)
    assert all(name for role, name in named if role in ("button", "combobox", "searchbox", "region", "table", "link"))


async def test_headings_go_down_one_level_at_a_time_and_tables_have_heads(tab, sweep_page):
    await tab.open(sweep_page)
    await tab.ask("document.querySelector('#sample-table tbody button').click()")
    levels = await tab.ask("[...document.querySelectorAll('h1, h2, h3, h4')].map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    whole = "one.caption && one.querySelector('thead th[scope=col]')"
    assert await tab.ask(f"[...document.querySelectorAll('table')].every((one) => {whole})")
    assert await tab.ask("document.querySelectorAll('table').length") > 6
    assert await tab.ask("document.documentElement.lang") == "en"


# -- the charts and tables of a sweep


async def test_charts_of_one_score_are_shown_at_a_time(tab, sweep_page):
    await tab.open(sweep_page)
    titles = "[...document.querySelectorAll('.charts:not([hidden]) h3')].map((one) => one.textContent)"
    assert await tab.ask(titles) == [
        "exact against sampling.temperature", "exact against cost", "exact against latency", "Distribution of exact, smollm2",
        "Distribution of exact, openai/gpt-4o-mini",
    ]  # fmt: skip
    await tab.ask(pick("choose-score", "f1"))
    assert (await tab.ask(titles))[0] == "f1 against sampling.temperature"
    assert await tab.ask("document.querySelectorAll('.charts:not([hidden]) .line').length") == 2  # one per model


async def test_cells_are_sorted_by_column(tab, sweep_page):
    await tab.open(sweep_page)
    column = "[...document.querySelectorAll('table.cells tbody tr')].map((row) => row.cells[0].textContent)"
    assert (await tab.ask(column))[0] == "#5"
    await tab.ask("document.querySelector('table.cells thead button').click()")
    assert await tab.ask(column) == [f"#{number}" for number in range(1, 9)]


async def test_the_page_works_without_a_script(tab, sweep_page):
    await tab.call("Emulation.setScriptExecutionDisabled", value=True)
    await tab.open(sweep_page)
    text = await tab.ask("document.body.innerText")
    assert "f1 against sampling.temperature" in text
    assert "The sample browser needs JavaScript" in text
    assert not await tab.ask("[...document.querySelectorAll('.js')].some((one) => one.checkVisibility())")


async def test_a_conversation_shows_its_calls_and_images(tab, tmp_path):
    calls = [{"id": "1", "type": "function", "function": {"name": "price", "arguments": '{"item": "tea"}'}}]
    asked = {
        "role": "user",
        "content": [{"type": "text", "text": "Look."}, {"type": "image_url", "image_url": {"url": REFERENCE}}],
    }
    called = {"role": "assistant", "content": None, "tool_calls": calls}
    said = [asked, called, {"role": "tool", "tool_call_id": "1", "content": "1.5"}]
    folder = record(tmp_path, "shop", [Sample(id="a", messages=said, output="It costs 1.5.")])
    (folder.path / "files").mkdir()
    (folder.path / "files" / REFERENCE.partition(":")[2]).write_bytes(PNG)
    await tab.open(report(folder.path))
    await tab.ask("document.querySelector('#sample-table tbody button').click()")
    await tab.until("document.querySelector('.block img')?.naturalWidth === 1")
    shown = await tab.ask("[...document.querySelectorAll('.block pre')].map((one) => one.textContent)")
    assert shown[:4] == [f"Look.\n[image {REFERENCE[7:19]}.png]", 'calls price({"item": "tea"})', "1.5", "It costs 1.5."]
