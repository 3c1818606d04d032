import asyncio, time, tempfile, sys
from pathlib import Path
from libs.bus.embedded import EmbeddedKafka
from libs.bus.kafka import KafkaBus
from libs.bus.topics import create_map_topics
from libs.process import free_port
from libs.settings import Settings
from services.monitor.service import service
from libs.runtime.runtime import Runtime
async def main(addr):
    t=time.monotonic(); await create_map_topics(addr); print("topics", time.monotonic()-t)
    for k in range(3):
        bus=KafkaBus(addr,"g","g",service.fetch)
        rt=Runtime(service,Settings(data_dir=Path(tempfile.mkdtemp()),broker=addr),service.settings(),bus)
        for name in ("_check_topics","_take_lease","_load","_publish","_assign"):
            f=getattr(rt,name)
            def wrap(f=f,name=name):
                async def w(*a):
                    t=time.monotonic(); 
                    try: return await f(*a)
                    finally: print("  ",name, round(time.monotonic()-t,3))
                return w
            setattr(rt,name,wrap())
        bs=bus.start
        async def st():
            t=time.monotonic(); await bs(); print("   bus.start", round(time.monotonic()-t,3))
        bus.start=st
        so=rt.store.open
        def op():
            t=time.monotonic(); so(); print("   store.open", round(time.monotonic()-t,3))
        rt.store.open=op
        gm=bus.getmany
        async def g(**kw):
            t=time.monotonic(); r=await gm(**kw); print("   getmany", round(time.monotonic()-t,3), len(r)); return r
        bus.getmany=g
        t=time.monotonic()
        task=asyncio.create_task(rt.run())
        while rt.not_ready_reason is not None: await asyncio.sleep(0.005)
        print("ready after", round(time.monotonic()-t,3))
        t=time.monotonic()
        rt.stop(); await task
        print("stop", round(time.monotonic()-t,3))
with tempfile.TemporaryDirectory() as d:
    t=time.monotonic()
    with EmbeddedKafka(Path(d), free_port()) as k:
        print("broker", time.monotonic()-t)
        asyncio.run(main(k.address))
