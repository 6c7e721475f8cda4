"""Public files that a build can fetch: the catalog and the plan, what lies in a cache, one transfer over HTTP."""

from index_builder.downloads.plan import (
    Download,
    Planned,
    fetch,
    plan_downloads,
    read_catalog,
    render_plan,
)

__all__ = ["Download", "Planned", "fetch", "plan_downloads", "read_catalog", "render_plan"]
