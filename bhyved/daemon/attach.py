"""Console requests on the control socket. control.py decides who may, and hands over; nothing here answers a request itself.

    session = attach.open_session(consoles, params, who="alice (uid 1001, pid 4242)", may_write=True)   # raises Refused(code, text)
    …control sends session.result as the answer of console.attach…
    await session.serve(sock, leftover)         # speaks frames (core.frames) until either side leaves; sock is a trio socket
    tail = attach.open_tail(consoles, params, who=…)     # console.tail: one or many guests, JSON notifications, same shape
    result = await attach.log(consoles, params)          # console.log: plain JSON result
    result = await attach.wait_for(consoles, params)     # console.wait-for
    result = attach.send(consoles, params, who=…)        # console.send
"""
