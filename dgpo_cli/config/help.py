def overview(): return ''
def command(v): return ''
def answer(r): return ''
