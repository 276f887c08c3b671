"""The page of a publication: static, with no request to anywhere else.

    build     the model from a published window
    model     what the page shows, as plain data
    render    the page from the model, by a template that escapes everything
    search    the index that the page's search loads, at most 300,000 addresses

``static/`` goes beside the page as it is. Nothing is inline: the page's policy
forbids it, and a test holds that.
"""
