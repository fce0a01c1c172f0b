"""The style sheet of the report: dark on white, one column on a phone, printable."""

STYLE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:#fff;color:#1d2530;font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 48px}
h1,h2,h3,p,li,dd,td,th,figcaption{overflow-wrap:anywhere}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 4px}
h2{font-size:1.25rem;margin:40px 0 12px;padding-bottom:6px;border-bottom:2px solid #e3e7ee}
h3{font-size:1rem;margin:0 0 8px}
.about{color:#4d5765;margin:0 0 18px}
.summary{background:#f1f6fb;border-left:4px solid #0072b2;border-radius:4px;padding:14px 18px;
font-size:1.08rem;margin:0}
.note{color:#4d5765;font-size:.9rem;margin:8px 0 14px}
h3 .note{font-weight:400}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:8px;text-align:right;vertical-align:top;border-bottom:1px solid #e3e7ee;
overflow-wrap:normal}
thead th{font-size:.84rem;font-weight:600;color:#3c4654;border-bottom:2px solid #b9c2cf;
vertical-align:bottom}
th:first-child,td:first-child,.left{text-align:left!important}
tbody th{font-weight:600;min-width:150px;max-width:230px;overflow-wrap:anywhere}
th small,td small{display:block;color:#5a6574;font-size:.76rem;white-space:nowrap;
font-weight:400}
.bar{display:block;height:4px;border-radius:2px;background:#e3e7ee;margin-top:3px;min-width:52px}
.bar i{display:block;height:4px;border-radius:2px;background:#0072b2}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:28px}
figure{margin:0;break-inside:avoid;min-width:0}
figure>svg{display:block;width:100%;height:auto}
figure>svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,
sans-serif!important}
figcaption{font-weight:600;margin-bottom:6px}
figcaption span{display:block;font-weight:400;color:#4d5765;font-size:.88rem}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:6px 0 0;padding:0;
font-size:.88rem}
.legend li{display:flex;align-items:center;gap:7px;min-width:0}
.swatch{width:34px;height:12px;flex:none}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:20px}
.card{border:1px solid #d9dfe8;border-radius:8px;padding:14px;break-inside:avoid;min-width:0}
.trio{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:10px;margin-bottom:12px}
.trio:last-child{margin-bottom:0}
.trio h4{grid-column:1/-1;margin:0;font-size:.9rem;overflow-wrap:anywhere}
.trio div{font-size:.82rem;line-height:1.3;min-width:0;overflow-wrap:anywhere}
.trio img{display:block;width:100%;max-width:132px;height:auto;image-rendering:pixelated;
border:1px solid #b9c2cf;margin-bottom:4px}
.scroll+h3{margin-top:26px}
.plots+.scroll{margin-top:22px}
.stack{display:flex;height:22px;border-radius:4px;overflow:hidden;background:#e3e7ee;
margin-bottom:8px}
.stack i{display:block;height:100%;border-right:1px solid #fff}
.stack i:last-child{border-right:0}
.dot{width:12px;height:12px;border-radius:3px;flex:none}
.card>.note{margin:8px 0 0}
.caution{color:#8a5a00;font-weight:600}
.right{color:#00694c;font-weight:600}
.wrong{color:#b03a00;font-weight:600}
dl{display:grid;grid-template-columns:minmax(130px,200px) minmax(0,1fr);gap:8px 18px;margin:0}
dt{font-weight:600}
dd{margin:0}
dd p{margin:0 0 4px}
code,pre{font:.86rem/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{overflow-wrap:anywhere}
pre{background:#f5f7fa;padding:12px 14px;border-radius:6px;margin:0;white-space:pre-wrap;
overflow-wrap:anywhere}
ul.plain{margin:0;padding-left:18px}
@media(max-width:600px){
main{padding:18px 14px 36px}
h1{font-size:1.5rem}
.summary{font-size:1rem;padding:12px 14px}
dl{grid-template-columns:minmax(0,1fr);gap:2px}
dd{margin-bottom:10px}
th,td{padding:7px 8px}
tbody th{min-width:134px;max-width:160px;position:sticky;left:0;background:#fff}
}
@media print{
body{font-size:11pt}
main{max-width:none;padding:0}
h2{break-after:avoid}
.scroll{overflow:visible}
.plots,.cards{grid-template-columns:1fr 1fr;gap:16px}
h2+.note{break-after:avoid}
pre{break-inside:avoid}
th,td{padding:5px 6px;font-size:.86rem}
.summary,.bar,.bar i,.stack,.stack i,.dot,pre{
-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
"""
