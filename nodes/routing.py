"""Routes on ComfyUI's server; handlers run in a thread, because they read files."""

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
    """Adds a route that responds with the (status, JSON) of `handler(params, headers)`.

    `params` holds the query's values and the path's parts in braces.
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
    """Adds a GET route that responds with the (status, HTML) of `handler(query)`."""
    from aiohttp import web

    async def handle(request: Any) -> Any:
        status, page = await asyncio.to_thread(handler, dict(request.rel_url.query))
        response = web.StreamResponse(status=status, headers=headers)
        response.content_type, response.charset = "text/html", "utf-8"
        await response.prepare(request)  # prepared here, else ComfyUI may replace our policy
        await response.write(page)
        return response

    server_routes().get(path)(handle)
