"""How routes of ComfyUI's server answer: in a thread, for they read files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from .host import server_routes


def add_json_route(
    method: str,
    path: str,
    handler: Callable[[dict[str, str], Mapping[str, str]], tuple[int, Any]],
) -> None:
    """Answers `method` of `path` with a status and JSON: `handler(asked, headers)`, in a thread.

    `params` has the parts of the path that are in braces, and the query's values.
    """
    from aiohttp import web

    async def handle(request: Any) -> Any:
        params = {**request.rel_url.query, **request.match_info}
        status, data = await asyncio.to_thread(handler, params, request.headers)
        return web.json_response(data, status=status, headers={"Cache-Control": "no-store"})

    server_routes().route(method, path)(handle)


def add_html_route(
    path: str, handler: Callable[[dict[str, str]], tuple[int, bytes]], headers: Mapping[str, str]
) -> None:
    """Answers GETs of `path` with the status and HTML that `handler` gives for a query."""
    from aiohttp import web

    async def handle(request: Any) -> Any:
        status, page = await asyncio.to_thread(handler, dict(request.rel_url.query))
        response = web.StreamResponse(status=status, headers=headers)
        response.content_type, response.charset = "text/html", "utf-8"
        await response.prepare(request)  # here: ComfyUI may put its own policy in place of ours
        await response.write(page)
        return response

    server_routes().get(path)(handle)
