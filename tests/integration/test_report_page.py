"""The report in a real browser: no complaint, curves are drawn, tokens are shaded, filters work, news arrive."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from controller.cli import main
from controller.metrics import MetricsLog
from controller.report.collection import collect
from controller.report.server import ReportServer
from tests.integration.chromium import Page, browse, needs_chromium
from tests.report_runs import HOSTILE, THOUGHT, add_step, make_run

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = [make_run(folder, f"made-s{seed}", num_steps=6, seed=seed) for seed in (0, 1)]
    with (made[0] / "events.jsonl").open("w") as file:
        file.write(json.dumps({"event": "health", "step": 3, "text": HOSTILE}) + "\n")
    return [*made, make_run(folder, "other-s0", num_steps=5, evaluated=False, tti={"enabled": False})]


def report(runs: list[Path], to: Path, *options: str) -> str:
    assert main(["report", *map(str, runs), "--to", str(to), *options]) == 0
    return to.as_uri()


async def texts(page: Page, selector: str) -> list[str]:
    found = await page.value(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)")
    return list(found)


async def choose(page: Page, control: str, value: str) -> None:
    await page.value(
        f"(() => {{ const box = document.getElementById({json.dumps(control)}); box.value = {json.dumps(value)};"
        " box.dispatchEvent(new Event('change')); return box.value; })()"
    )


def test_curves_are_drawn_marked_and_searched(runs: list[Path], tmp_path: Path) -> None:
    url = report(runs[:1], tmp_path / "one.html")

    async def look() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(url)
            assert await page.value("document.title") == "made-s0 · t2po"  # hostile texts did not change it
            assert "the intervals overlap" in (await texts(page, ".summary"))[0]
            paths = await page.value(
                "Object.fromEntries([...document.querySelectorAll('#curves [data-metric]')].map((one) =>"
                " [one.dataset.metric, one.querySelector('path.curve').getAttribute('d')]))"
            )
            assert {"success", "entropy", "approx_kl", "queue_depth"} <= set(paths)
            assert all(path.startswith("M") and "NaN" not in path for path in paths.values())
            assert paths["success"].count("L") == 5  # six steps
            assert "grad_norm 0.5" in (await texts(page, "#group-update .flat"))[0]
            assert len(await texts(page, "[data-metric=success] .mark.evaluation")) == 1  # the other one is at step 0
            assert await texts(page, "[data-metric=success] .mark.health title") == [f"step 3: {HOSTILE}"]
            assert await page.value("document.querySelectorAll('#kinds [data-kind=walk] .dot').length") == 2

            await page.value(
                "(() => { const svg = document.querySelector('[data-metric=entropy] svg'); svg.focus();"
                " svg.dispatchEvent(new KeyboardEvent('keydown', {key: 'Home'})); })()"
            )
            assert (await texts(page, "#tip"))[0].startswith("entropy · step 11 nats")
            cross = "document.querySelector('[data-metric=success] .cross').getAttribute('visibility')"
            assert await page.value(cross) == "visible"  # all curves show the step

            await page.value("document.querySelector('[data-metric=entropy] button').click()")
            assert await page.value("document.getElementById('large').open")
            assert "Mean entropy of the next-token distribution" in (await texts(page, "#large p"))[0]
            await page.value("document.getElementById('close').click()")
            await page.value(
                "(() => { const box = document.getElementById('search'); box.value = 'KL';"
                " box.dispatchEvent(new Event('input')); })()"
            )
            assert await texts(page, "#curves [data-metric] .name") == ["approx_kl"]
            assert page.problems == []

    asyncio.run(look())


def test_trajectories_are_filtered_and_their_tokens_shaded(runs: list[Path], tmp_path: Path) -> None:
    url = report(runs[:1], tmp_path / "one.html", "--trajectories", "3")

    async def look() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(url)
            assert await texts(page, "#step option") == ["1", "3", "6"]
            assert "3 of 6 steps" in (await texts(page, "#left-out"))[0]
            assert len(await texts(page, ".item")) == 6
            await choose(page, "outcome", "won")
            assert (
                await page.value("[...document.querySelectorAll('.item')].map((one) => one.dataset.won)")
                == ["true"] * 2
            )
            await choose(page, "outcome", "all")
            await page.value("document.getElementById('touched').click()")
            assert len(await texts(page, ".item")) == 4
            await choose(page, "group", await page.value("document.querySelector('#group option:nth-child(2)').value"))
            assert len(await texts(page, ".item")) == 2

            await page.value("document.querySelector('.item[data-won=true]').click()")
            tokens = await page.value(
                "[...document.querySelectorAll('#turn-1 .reply .token')].map((one) => [one.textContent, one.className,"
                " one.style.getPropertyValue('--m'), getComputedStyle(one).backgroundColor, one.title])"
            )
            assert "".join(text.replace("↵", "\n") for text, *_ in tokens) == THOUGHT
            assert "東" in [text for text, *_ in tokens]  # three tokens, one character
            shaded = [one for one in tokens if "sampled" in one[1]]
            assert float(shaded[0][2]) < 0.1 and float(shaded[-1][2]) > 0.9 and shaded[0][3] != shaded[-1][3]
            assert shaded[-1][4].startswith("M 1.000 (token ")
            assert [text for text, kind, *_ in tokens if "forced" in kind] == ["w", "ä"]
            assert await texts(page, "#turn-1 .ended") == ["TTI"]
            assert await page.value("document.querySelector('#turn-1 .ended').nextSibling.textContent") == "w"
            assert await texts(page, "#turn-0 .badge") == ["badly formed"]
            assert "reward 1" in await texts(page, "#turn-1 .badge")

            await page.value("document.querySelector('.item[data-won=false]').click()")
            assert await page.value("document.querySelector('details.rejected').open") is False
            await page.value("document.querySelector('details.rejected').open = true")
            await page.until("document.querySelectorAll('details.rejected .token.sampled').length > 5")
            assert "Γ 0.001" in (await texts(page, "details.rejected summary"))[0]
            assert HOSTILE in await texts(page, "#turn-1 .observation")
            assert "trajectory=" in await page.value("location.hash")
            assert page.problems == []

            address = await page.value("location.href")
            await page.call("Page.navigate", url="about:blank")
            await page.open(address)  # the address leads back to what was read
            assert await page.value("document.querySelector('.item[aria-pressed=true]').dataset.won") == "false"

    asyncio.run(look())


def test_page_of_runs_side_by_side(runs: list[Path], tmp_path: Path) -> None:
    url = report(runs, tmp_path / "three.html", "--trajectories", "1")

    async def look() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(url, dark=True)
            assert await texts(page, "#curve-groups > .legend span:not(.dim)") == [
                "made (seeds 0, 1)",
                "other (seed 0)",
            ]
            drawn = await page.value("document.querySelectorAll('[data-metric=success] path.band').length")
            assert drawn == 1
            await page.value("document.getElementById('each').click()")
            assert await page.value("document.querySelectorAll('[data-metric=success] path.raw').length") >= 2
            assert "tti.enabled" in "".join(await texts(page, "#differs th"))
            assert "evaluated after on unseen" in await texts(page, "#numbers th")
            await choose(page, "run", "2")
            assert await page.value("document.querySelector('#run').selectedOptions[0].textContent") == "other-s0"
            assert page.problems == []

    asyncio.run(look())


@pytest.mark.parametrize("width", [400, 1600])
def test_page_fits_its_window_and_can_be_reached_by_keys(runs: list[Path], tmp_path: Path, width: int) -> None:
    url = report(runs[:1], tmp_path / "one.html")

    async def look() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(url, width=width)
            assert await page.value("document.documentElement.scrollWidth <= innerWidth")
            unreachable = await page.value(
                "[...document.querySelectorAll('svg.chart, button, select, input, summary, a[href]')]"
                ".filter((one) => one.tabIndex < 0).length"
            )
            assert unreachable == 0
            unnamed = await page.value(
                "[...document.querySelectorAll('svg.chart, svg.course, dialog, section')]"
                ".filter((one) => !one.getAttribute('aria-label')).length"
            )
            assert unnamed == 0

    asyncio.run(look())


@pytest.mark.parametrize("num_steps", [0, 1])
def test_page_of_a_run_that_has_only_begun(tmp_path: Path, num_steps: int) -> None:
    url = report([make_run(tmp_path, num_steps=num_steps, evaluated=False)], tmp_path / "young.html")

    async def look() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(url)
            said = await page.value("document.body.innerText")
            assert "No step is done yet" in said if num_steps == 0 else "1 of 4 steps are done" in said
            assert page.problems == []

    asyncio.run(look())


def test_served_page_takes_news_and_keeps_the_place(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_steps=2, evaluated=False)

    async def look() -> None:
        server = ReportServer([run], "live", partial(collect, [run], 2))
        runner = web.AppRunner(server.application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with browse(tmp_path / "profile") as page:
                await page.open(f"http://127.0.0.1:{runner.addresses[0][1]}/", height=500)
                await page.until("document.getElementById('news').textContent === 'live'")
                await page.value("document.querySelector('.item[data-won=false]').click()")
                await page.value("document.querySelector('details.rejected').open = true")
                await page.value("document.getElementById('turn-1').scrollIntoView()")
                shown = await page.value("document.querySelector('#detail h3 + p').textContent")
                top = await page.value("document.getElementById('turn-1').getBoundingClientRect().top")

                metrics = MetricsLog(run / "metrics.jsonl")
                add_step(run, 3, metrics)
                add_step(run, 4, metrics)
                metrics.close()
                await page.until("document.querySelector('.summary').textContent.includes('4 of 4 steps')")
                assert (
                    await page.value(
                        "document.querySelector('[data-metric=success] path.curve').getAttribute('d').split('L').length"
                    )
                    == 4
                )
                assert await texts(page, "#step option") == ["1", "4"]  # the step that is read is no longer in the page
                assert await page.value("document.querySelector('#detail h3 + p').textContent") == shown
                assert await page.value("document.querySelector('details.rejected').open")
                after = await page.value("document.getElementById('turn-1').getBoundingClientRect().top")
                assert abs(after - top) < 4
                assert page.problems == []

                await runner.cleanup()
                await page.until("document.getElementById('news').textContent.includes('has ended')")
        finally:
            await runner.cleanup()

    asyncio.run(look())
