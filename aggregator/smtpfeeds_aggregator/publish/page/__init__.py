"""The static page of a publication, without requests to other sites.

    build     the model from a published window
    model     what the page shows, as plain data
    render the page from the model, with a template that escapes everything
    search    the index that the page's search loads, at most 300,000 addresses

The files in ``static/`` are published unchanged beside the page. Nothing is inline: the page's
policy forbids that, and a test checks it.
"""
