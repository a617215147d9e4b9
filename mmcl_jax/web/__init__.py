"""A trained model as a web page: pose estimator and model run in the browser of whoever opens it.

`packages` fetches what others wrote, pinned by `npm/package-lock.json`; `folder` puts it together with the model and
the modules in `page`; `server` shows the folder on this machine.
"""
